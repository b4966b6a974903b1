/* top.h: `weir top`: the status page for a terminal. */
#ifndef WEIR_TOP_H
#define WEIR_TOP_H

/* argv[0] is "top". Returns the exit status: 0, 1 when weir can't be asked, 2 when the options are wrong. */
int top_main(int argc, char **argv);

#endif
