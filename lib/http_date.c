/* http_date.c: the time as HTTP writes it.
 *
 *      Sun, 06 Nov 1994 08:49:37 GMT        29 characters, always; English in every country, and never local time
 *
 * Whoever passes an answer on that has no Date adds the time at which it came (RFC 9110 §6.6.1): without it nobody
 * further on, a cache least of all, can say how old the answer is.
 *
 * The C library could do this in two calls. But strftime() asks the locale for the names of days, and the program that
 * weir is embedded in may have set one; and gmtime_r() takes the lock of the time zone, which every thread with an
 * answer would then wait for. So the day is worked out here.
 *
 * The idea: let the year begin in March. The leap day is then the last day of a year and disturbs nothing before it;
 * the months, March first, have 31 30 31 30 31 | 31 30 31 30 31 | 31 28 days: 153 for each five, which is why
 * (5 × day + 2) ÷ 153 is the month. 400 years have 146,097 days, always, and after them everything repeats.
 *
 * Invariant: any number of seconds gives 29 sound characters; times before 1970 and after 9999 become those ends.
 *
 * Source: RFC 9110 §5.6.7 (IMF-fixdate); the Gregorian calendar.
 */
#include <string.h>

#include "http.h"

#define S_PER_DAY 86400
#define DAYS_PER_400_YEARS 146097
#define DAYS_PER_100_YEARS 36524
#define DAYS_PER_4_YEARS 1461
/* From 1 March of the year 0 to 1 January 1970, which was a Thursday. */
#define DAYS_BEFORE_1970 719468
#define LAST_S INT64_C(253402300799) /* 31 December 9999 */

static char *put_number(char *at, int64_t number, int digits)
{
	for (int i = digits; i-- > 0; number /= 10)
		at[i] = (char)('0' + number % 10);
	return at + digits;
}

/* "Fri, 02 Jan 1970 ": days counted from 1 January 1970. */
static char *put_day(char *at, int64_t days)
{
	static const char day_names[] = "Thu, Fri, Sat, Sun, Mon, Tue, Wed, ";
	static const char month_names[] = " Mar  Apr  May  Jun  Jul  Aug  Sep  Oct  Nov  Dec  Jan  Feb ";
	int64_t day = days + DAYS_BEFORE_1970;
	int64_t year = day / DAYS_PER_400_YEARS * 400;
	day %= DAYS_PER_400_YEARS;

	/* Without the leap days that have been, every year has 365 days. The last day of 400 years is a leap day, too. */
	int64_t leap_days = day / (DAYS_PER_4_YEARS - 1) - day / DAYS_PER_100_YEARS + day / (DAYS_PER_400_YEARS - 1);
	int64_t year_of_400 = (day - leap_days) / 365;
	int64_t day_of_year = day - (365 * year_of_400 + year_of_400 / 4 - year_of_400 / 100);
	int64_t month = (5 * day_of_year + 2) / 153; /* 0 is March */
	year += year_of_400 + (month >= 10 ? 1 : 0);

	memcpy(at, day_names + days % 7 * 5, 5);
	at = put_number(at + 5, day_of_year - (153 * month + 2) / 5 + 1, 2);
	memcpy(at, month_names + month * 5, 5);
	at = put_number(at + 5, year, 4);
	*at = ' ';
	return at + 1;
}

void http_write_date(int64_t unix_s, char out[HTTP_DATE_MAX])
{
	int64_t s = unix_s < 0 ? 0 : unix_s > LAST_S ? LAST_S : unix_s;
	char *at = put_day(out, s / S_PER_DAY);
	at = put_number(at, s % S_PER_DAY / 3600, 2);
	*at++ = ':';
	at = put_number(at, s % 3600 / 60, 2);
	*at++ = ':';
	at = put_number(at, s % 60, 2);
	memcpy(at, " GMT", sizeof " GMT");
}
