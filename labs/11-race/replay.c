/* replay.c: shows what the threads of lab 11 did: `make replay [SEED=N] [SCENE=N] [MINE=file.c]`.
 *
 *      replay                    of each scene the first seed that goes wrong, of 2,000
 *      replay SEED [SCENE]       that seed: of the scenes that go wrong with it, or of that one
 *
 * Ends with 0 when nothing went wrong, 1 when something did, 2 when it was called wrongly.
 */
#include "labs/11-race/scenes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SEEDS 2000u

static char text[SCENE_TEXT_MAX];

static void show(unsigned scene, uint64_t seed, bool went_well)
{
	printf("scene %u, seed %" PRIu64 ": %s\n\n%s\n%s\n", scene + 1, seed, scene_title(scene), text,
	       went_well ? "It went well.\n" : "");
	if (!went_well)
		printf("again: make replay SEED=%" PRIu64 " SCENE=%u\n\n", seed, scene + 1);
}

static int search(void)
{
	unsigned failed = 0;

	for (unsigned scene = 0; scene < SCENES; scene++) {
		uint64_t seed = 1;

		while (seed <= SEEDS && scene_play(scene, seed, text))
			seed++;
		if (seed > SEEDS) {
			printf("scene %u: %s: %u seeds went well\n\n", scene + 1, scene_title(scene), SEEDS);
			continue;
		}
		failed++;
		show(scene, seed, false);
	}
	return failed > 0;
}

int main(int argc, char **argv)
{
	char *end;

	if (argc < 2)
		return search();
	uint64_t seed = strtoull(argv[1], &end, 10);
	unsigned long only = argc > 2 ? strtoul(argv[2], NULL, 10) : 0, failed = 0;
	if (*end != '\0' || only > SCENES) {
		fprintf(stderr, "usage: replay [SEED [SCENE]], with a scene of 1 to %u\n", SCENES);
		return 2;
	}
	for (unsigned scene = 0; scene < SCENES; scene++) {
		if (only != 0 && scene + 1 != only)
			continue;
		bool went_well = scene_play(scene, seed, text);
		if (!went_well || only != 0)
			show(scene, seed, went_well);
		else
			printf("scene %u, seed %" PRIu64 ": %s: went well (SCENE=%u shows it)\n\n", scene + 1, seed,
			       scene_title(scene), scene + 1);
		failed += !went_well;
	}
	return failed > 0;
}
