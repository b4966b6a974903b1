/* test_siphash.c: SipHash-2-4 against the 64 numbers that its authors publish: the secret is the bytes 00 to 0f,
 * message n is the n bytes 00, 01, 02 and so on, and each number is written as its bytes in memory, the lowest first.
 */
#include "../../lib/siphash.h"
#include "unit.h"

#include <stdio.h>
#include <string.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static const char *const published[64] = {
	"310e0edd47db6f72", "fd67dc93c539f874", "5a4fa9d909806c0d", "2d7efbd796666785", "b7877127e09427cf",
	"8da699cd64557618", "cee3fe586e46c9cb", "37d1018bf50002ab", "6224939a79f5f593", "b0e4a90bdf82009e",
	"f3b9dd94c5bb5d7a", "a7ad6b22462fb3f4", "fbe50e86bc8f1e75", "903d84c02756ea14", "eef27a8e90ca23f7",
	"e545be4961ca29a1", "db9bc2577fcc2a3f", "9447be2cf5e99a69", "9cd38d96f0b3c14b", "bd6179a71dc96dbb",
	"98eea21af25cd6be", "c7673b2eb0cbf2d0", "883ea3e395675393", "c8ce5ccd8c030ca8", "94af49f6c650adb8",
	"eab8858ade92e1bc", "f315bb5bb835d817", "adcf6b0763612e2f", "a5c91da7acaa4dde", "716595876650a2a6",
	"28ef495c53a387ad", "42c341d8fa92d832", "ce7cf2722f512771", "e37859f94623f3a7", "381205bb1ab0e012",
	"ae97a10fd434e015", "b4a31508beff4d31", "81396229f0907902", "4d0cf49ee5d4dcca", "5c73336a76d8bf9a",
	"d0a704536ba93e0e", "925958fcd6420cad", "a915c29bc8067318", "952b79f3bc0aa6d4", "f21df2e41d4535f9",
	"87577519048f53a9", "10a56cf5dfcd9adb", "eb75095ccd986cd0", "51a9cb9ecba312e6", "96afadfc2ce666c7",
	"72fe52975a4364ee", "5a1645b276d592a1", "b274cb8ebf87870a", "6f9bb4203de7b381", "eaecb2a30b22a87f",
	"9924a43cc1315724", "bd838d3aafbf8db7", "0b1a2a3265d51aea", "135079a3231ce660", "932b2846e4d70666",
	"e1915f5cb1eca46c", "f325965ca16d629f", "575ff28e60381be5", "724506eb4c328a95",
};

static void count_up(uint8_t *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		bytes[i] = (uint8_t)i;
}

static void the_published_numbers_come_out(void)
{
	uint8_t secret[SIPHASH_SECRET_BYTES], message[64];

	count_up(secret, sizeof(secret));
	count_up(message, sizeof(message));
	for (size_t length = 0; length < LENGTH(published); length++) {
		struct siphash hash;
		char text[17];

		siphash_begin(&hash, secret);
		siphash_add(&hash, message, length);
		uint64_t number = siphash_end(&hash);
		for (unsigned i = 0; i < 8; i++)
			snprintf(text + 2 * (size_t)i, 3, "%02x", (unsigned)(number >> (8 * i) & 0xff));
		CU_ASSERT_STRING_EQUAL(text, published[length]);
	}
}

static void pieces_give_what_the_whole_gives(void)
{
	uint8_t secret[SIPHASH_SECRET_BYTES], message[64];

	count_up(secret, sizeof(secret));
	count_up(message, sizeof(message));
	for (size_t length = 0; length <= 40; length++) {
		struct siphash whole;

		siphash_begin(&whole, secret);
		siphash_add(&whole, message, length);
		uint64_t expected = siphash_end(&whole);
		for (size_t first = 0; first <= length; first++) {
			size_t second = (length - first) / 2;
			struct siphash hash;

			siphash_begin(&hash, secret);
			siphash_add(&hash, message, first);
			siphash_add(&hash, message + first, second);
			siphash_add(&hash, message + first + second, length - first - second);
			CU_ASSERT_EQUAL(siphash_end(&hash), expected);
		}
	}
}

static void another_secret_gives_other_numbers(void)
{
	uint8_t secret[SIPHASH_SECRET_BYTES] = { 0 };
	uint64_t numbers[1 + SIPHASH_SECRET_BYTES];

	for (size_t i = 0; i < LENGTH(numbers); i++) {
		struct siphash hash;

		if (i > 0)
			secret[i - 1] ^= 1;
		siphash_begin(&hash, secret);
		siphash_add(&hash, "weir", 4);
		numbers[i] = siphash_end(&hash);
		for (size_t k = 0; k < i; k++)
			CU_ASSERT_NOT_EQUAL(numbers[k], numbers[i]);
	}
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(the_published_numbers_come_out),
		TEST(pieces_give_what_the_whole_gives),
		TEST(another_secret_gives_other_numbers),
	};

	return unit_main("siphash", tests, LENGTH(tests));
}
