/* healthcheck.h: `weir --healthcheck [URL]`: is it well? For a container's engine, which knows a command's exit status only. */
#ifndef WEIR_HEALTHCHECK_H
#define WEIR_HEALTHCHECK_H

#include <stdbool.h>

/* Is this the option: "--healthcheck", with one dash or two, or with =URL behind it? */
bool healthcheck_is_asked(const char *argument);
/* argv[1] is that option. Returns the exit status: 0 when the answer was 2xx, 1 when it was not or none came in time, 2 when what follows
   is no URL. One line on stderr says which. Reads WEIR_ADMIN; main thread. */
int healthcheck_main(int argc, char **argv);

#endif
