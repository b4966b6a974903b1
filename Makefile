# weir: `make help` lists what can be made. GNU make.
#
#       sources ──► objects ──► libweir.a ──► weir, server_demo, client_demo, each unit test, each fuzz target
#
# Everything but the mains goes into one static library, and each program takes from it only the objects that it needs.
# The same rules build several flavours, each with its own flags in its own folder, so that none spoils another's:
#
#       FLAVOUR=        build/          the programs themselves, put in the top folder
#       FLAVOUR=asan    build/asan/     AddressSanitizer, UndefinedBehaviorSanitizer, leak check
#       FLAVOUR=tsan    build/tsan/     ThreadSanitizer
#       FLAVOUR=lint    build/lint/     clang, with the lock annotations of lib/ts.h checked
#       FLAVOUR=fuzz    build/fuzz/     clang's libFuzzer with both sanitizers
#
# From outside: CC, CFLAGS, CPPFLAGS, LDFLAGS (added to weir's own flags), WERROR= (warnings stay warnings), V=1 (show
# commands), PREFIX, DESTDIR, BUILD (where objects go), and the idea files, to try your own:
#
#       make LIMITER=labs/mine/limiter.c test

all: weir server_demo client_demo ## build weir and the two demo programs (what plain `make` does)
test: ; $(call run_tests,) ## install what is missing, build, run the unit tests and the system tests
unit: ; $(call run_tests,,unit) ## the unit tests alone
asan: ; $(call run_tests,asan) ## the same tests under AddressSanitizer and UndefinedBehaviorSanitizer
tsan: ; $(call run_tests,tsan) ## the same tests under ThreadSanitizer
sim: ; $(run_sim) ## the cluster simulated, every window checked: make sim HOURS=500 SEED=1
sim_mutations: ; $(run_sim_mutations) ## break the cluster's rules one by one: the simulation must find each
cluster_table: ; $(run_cluster_table) ## the cluster's scenarios: fullest window, utilisation, failover, latency
fuzz: ; $(run_fuzz) ## each parser against random input: make fuzz SECONDS=60
bench: ; $(run_bench) ## the goals of speed, weir beside others, a target killed under load, the limits' exactness and cost
bench_limits: ; $(run_bench_limits) ## thresholds against the largest window seen and the utilisation
bench_decision: ; $(run_bench_decision) ## what one decision of a limit costs, alone and with 64 threads on it
lint: ; $(run_lint) ## clang's lock checker, the layering rules, the scripts, the reference page
docs: ; $(write_docs) ## write docs/settings.md from the settings table
install: all ; $(install_files) ## install below PREFIX (/usr/local), in DESTDIR if given
uninstall: ; $(uninstall_files) ## remove what install put there
clean: ; rm -rf $(BUILD) weir server_demo client_demo ## remove everything that was built
help: ; @sed -n 's/^\([a-z_]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24 ## this list
.PHONY: all test unit asan tsan sim sim_mutations cluster_table fuzz bench bench_limits bench_decision lint docs install uninstall clean help objects \
	unit_tests fuzz_targets bench_programs FORCE

VERSION = 0.1.0

# ---- what there is ---------------------------------------------------------------------------------------------------

BALANCER = balancer.c
LIMITER = limiter.c
CLUSTER = $(wildcard cluster.c)
LIBRARY_SOURCES = weir.c roster.c service.c group.c \
	console.c live.c status.c metrics.c control.c \
	proxy.c roads.c entrance.c admit.c stats.c line.c attempt.c \
	reverse.c \
	forward.c parent.c host_rates.c \
	switch.c switch_table.c \
	cluster_wire.c \
	$(wildcard lib/*.c)
PAGE = page/page.html page/page.css page/page.js
PROGRAMS = weir server_demo client_demo
UNIT_TESTS = $(patsubst %.c,%,$(wildcard tests/unit/test_*.c))
FUZZ_TARGETS = $(patsubst fuzz/%.c,%,$(wildcard fuzz/fuzz_*.c))
BENCH_PROGRAMS = $(patsubst %.c,%,$(wildcard bench/*.c))
SIM_SOURCES = $(wildcard tests/sim/*.c)

BUILD = build
FLAVOUR =
O = $(BUILD)$(if $(FLAVOUR),/$(FLAVOUR))
BIN = $(if $(FLAVOUR),$(O),.)

LIBRARY = $(O)/libweir.a
# An idea's object has the idea's name, whichever file it is made from.
IDEA_OBJECTS = $(O)/balancer.o $(O)/limiter.o $(if $(CLUSTER),$(O)/cluster.o)
LIBRARY_OBJECTS = $(LIBRARY_SOURCES:%.c=$(O)/%.o) $(IDEA_OBJECTS) $(O)/page.o
MAIN_OBJECTS = $(O)/main.o $(O)/top.o $(O)/server_demo.o $(O)/client_demo.o
UNIT_OBJECTS = $(UNIT_TESTS:%=$(O)/%.o) $(O)/tests/unit/unit.o
FUZZ_OBJECTS = $(FUZZ_TARGETS:%=$(O)/fuzz/%.o)
BENCH_OBJECTS = $(BENCH_PROGRAMS:%=$(O)/%.o)
SIM_OBJECTS = $(SIM_SOURCES:%.c=$(O)/%.o)
OBJECTS = $(LIBRARY_OBJECTS) $(MAIN_OBJECTS) $(UNIT_OBJECTS) $(FUZZ_OBJECTS) $(BENCH_OBJECTS) $(SIM_OBJECTS)

# ---- how it is compiled ----------------------------------------------------------------------------------------------

ifeq ($(origin CC),default)
CC = gcc
endif
WERROR = -Werror
CFLAGS = $(if $(FLAVOUR),-O1,-O2) -g

# What a compiler or a processor may lack is asked for first.
supported = $(shell printf '\043include <string.h>\nint main(void) { return 0; }\n' | \
	$(CC) -O2 -Werror $(1) -x c - -o /dev/null 2>/dev/null && echo '$(1)')
HARDENING := -fstack-protector-strong $(call supported,-fstack-clash-protection) $(call supported,-fcf-protection) \
	-Wformat -Wformat-security
# _FORTIFY_SOURCE needs an optimiser, must not be given twice (a packager's own wins), and hides errors from sanitizers.
ifeq ($(FLAVOUR)$(findstring _FORTIFY_SOURCE,$(CPPFLAGS) $(CFLAGS)),)
ifneq ($(filter -O1 -O2 -O3 -Os,$(CFLAGS)),)
HARDENING += $(or $(call supported,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
endif
endif

SANITIZE_asan = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SANITIZE_tsan = -fsanitize=thread -fno-omit-frame-pointer
SANITIZE_lint = -Wthread-safety -Wthread-safety-beta
SANITIZE_fuzz = -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SANITIZE = $(SANITIZE_$(FLAVOUR))

OWN_CFLAGS = -std=c11 -D_GNU_SOURCE -DWEIR_VERSION='"$(VERSION)"' -I. -pthread -fPIE \
	-Wall -Wextra -Wshadow -Wconversion $(WERROR) $(HARDENING) $(SANITIZE)
OWN_LDFLAGS = -pthread -pie -Wl,--as-needed -Wl,-z,relro,-z,now -Wl,-z,noexecstack $(SANITIZE)
LIBS = -linih -ljansson -lhiredis -lssl -lcrypto -lcrypt -lm

COMPILE = $(CC) $(OWN_CFLAGS) $(CPPFLAGS) $(CFLAGS)
LINK = $(CC) $(CFLAGS) $(OWN_LDFLAGS) $(LDFLAGS)

MAKEFLAGS += --no-builtin-rules
ifneq ($(V),1)
.SILENT:
endif

# ---- the rules -------------------------------------------------------------------------------------------------------

ifneq ($(BIN),.)
$(PROGRAMS): %: $(BIN)/%
.PHONY: $(PROGRAMS)
endif

$(BIN)/weir: $(O)/main.o $(O)/top.o $(LIBRARY)
$(BIN)/server_demo: $(O)/server_demo.o $(LIBRARY)
$(BIN)/client_demo: $(O)/client_demo.o $(LIBRARY)
$(PROGRAMS:%=$(BIN)/%):
	echo "  link     $@"
	$(LINK) -o $@ $^ $(LIBS)

$(LIBRARY): $(LIBRARY_OBJECTS) $(O)/contents
	echo "  archive  $@"
	rm -f $@
	ar rcs $@ $(filter %.o,$^)

$(O)/balancer.o: $(BALANCER)
$(O)/limiter.o: $(LIMITER)
$(O)/cluster.o: $(CLUSTER)
$(O)/balancer.o: SOURCE = $(BALANCER)
$(O)/limiter.o: SOURCE = $(LIMITER)
$(O)/cluster.o: SOURCE = $(CLUSTER)
$(IDEA_OBJECTS): $(O)/flags $(O)/ideas ; $(compile)
# The status page is written as HTML, CSS and JavaScript, and compiled as bytes.
$(O)/page.c: $(PAGE) page/embed.sh
	mkdir -p $(@D)
	page/embed.sh $(PAGE) >$@.new
	mv $@.new $@
$(O)/page.o: $(O)/page.c $(O)/flags ; $(compile)
$(filter-out $(IDEA_OBJECTS) $(O)/page.o,$(OBJECTS)): $(O)/%.o: %.c $(O)/flags ; $(compile)

# -MMD writes which headers an object was made from; -MP lets a header disappear, and the empty rule a source.
SOURCE = $<
define compile
	echo "  compile  $@"
	mkdir -p $(@D)
	$(COMPILE) -MMD -MP -c -o $@ $(SOURCE)
endef
%.c: ;
-include $(OBJECTS:%.o=%.d)

# Files that change when, and only when, what they say does: a new command line makes every object again, another file
# for an idea the ideas' objects, a new list of objects the library.
$(O)/flags: SAYS = $(COMPILE) $(LINK) $(LIBS)
$(O)/ideas: SAYS = $(BALANCER) $(LIMITER) $(CLUSTER)
$(O)/contents: SAYS = $(LIBRARY_OBJECTS)
$(O)/flags $(O)/ideas $(O)/contents: FORCE
	mkdir -p $(@D)
	printf '%s\n' '$(subst ','\'',$(SAYS))' >$@.new
	if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

unit_tests: $(UNIT_TESTS:%=$(O)/%)
$(UNIT_TESTS:%=$(O)/%): %: %.o $(O)/tests/unit/unit.o $(LIBRARY)
	echo "  link     $@"
	$(LINK) -o $@ $^ -lcunit $(LIBS)

fuzz_targets: $(FUZZ_TARGETS:%=$(O)/%)
$(FUZZ_TARGETS:%=$(O)/%): $(O)/%: $(O)/fuzz/%.o $(LIBRARY)
	echo "  link     $@"
	$(LINK) -fsanitize=fuzzer -o $@ $^ $(LIBS)

bench_programs: $(BENCH_PROGRAMS:%=$(O)/%)
$(BENCH_PROGRAMS:%=$(O)/%): %: %.o $(LIBRARY)
	echo "  link     $@"
	$(LINK) -o $@ $^ $(LIBS)

# Not from the library: a rule that was broken on purpose then makes two objects again, and not all.
$(O)/tests/sim/sim: $(SIM_OBJECTS) $(O)/cluster.o $(O)/limiter.o $(O)/cluster_wire.o
	echo "  link     $@"
	$(LINK) -o $@ $^ $(LIBS)

objects: $(OBJECTS)

# ---- what the table of contents calls --------------------------------------------------------------------------------

# Inside one of these a second make builds a flavour, on all processors unless the caller has said how many.
jobs = $(if $(findstring -j,$(MAKEFLAGS)),,-j$$(nproc))
make_flavour = $(MAKE) --no-print-directory $(jobs)

# $(1) the flavour, $(2) "unit" for the unit tests alone
define run_tests
	deploy/prerequisites.sh test
	+$(make_flavour) FLAVOUR=$(1) $(if $(2),,$(PROGRAMS) bench_programs) unit_tests
	CC='$(CC)' tests/run.sh '$(1)' '$(BUILD)/$(1)/tests/unit' $(if $(2),,'$(if $(1),$(BUILD)/$(1),$(BIN))')
endef

HOURS = 500
SEED = 1
define run_sim
	deploy/prerequisites.sh build
	+$(make_flavour) $(O)/tests/sim/sim
	$(O)/tests/sim/sim --hours $(HOURS) --seed $(SEED) --jobs $$(nproc)
endef

define run_sim_mutations
	deploy/prerequisites.sh test
	+$(make_flavour) $(O)/tests/sim/sim
	tests/sim/mutations.py --objects '$(O)' --compile '$(COMPILE)' --link '$(LINK)' --libs '$(LIBS)'
endef

define run_cluster_table
	deploy/prerequisites.sh build
	+$(make_flavour) $(O)/tests/sim/sim
	$(O)/tests/sim/sim --table
endef

SECONDS = 60
define run_fuzz
	deploy/prerequisites.sh fuzz
	+$(make_flavour) FLAVOUR=fuzz CC=clang fuzz_targets
	fuzz/run.sh $(BUILD)/fuzz $(SECONDS)
endef

define run_bench
	deploy/prerequisites.sh bench
	+$(make_flavour) all bench_programs
	python3 bench/goals.py --bin $(BIN) --bench $(O)/bench
	python3 bench/bulk.py --bin $(BIN)
	python3 bench/run.py --bin $(BIN)
	python3 bench/failover.py --bin $(BIN)
	python3 bench/packets.py --bin $(BIN)
	python3 bench/tunnel.py --bin $(BIN)
	python3 bench/caps.py --bin $(BIN)
	python3 bench/tls.py --bin $(BIN)
	python3 bench/admin.py --bin $(BIN)
	$(run_bench_limits)
	$(run_bench_decision)
endef

define run_bench_limits
	deploy/prerequisites.sh bench
	+$(make_flavour) all bench_programs
	python3 bench/limits.py --bin $(BIN) --arrivals $(O)/bench/arrivals
endef

define run_bench_decision
	deploy/prerequisites.sh build
	+$(make_flavour) bench_programs
	$(O)/bench/decision
endef

define run_lint
	deploy/prerequisites.sh lint
	+$(make_flavour) FLAVOUR=lint CC=clang objects
	+$(make_flavour) weir
	tests/lint.sh $(BIN)/weir $(BALANCER) $(LIMITER) $(CLUSTER)
endef

define write_docs
	+$(make_flavour) weir
	$(BIN)/weir --reference >docs/settings.md.new
	mv docs/settings.md.new docs/settings.md
endef

PREFIX = /usr/local
bindir = $(PREFIX)/bin
sbindir = $(PREFIX)/sbin
libexecdir = $(PREFIX)/libexec
docdir = $(PREFIX)/share/doc/weir

# The names server_demo and client_demo are too general for a bin folder: they go where only weir looks.
define install_files
	install -d $(DESTDIR)$(sbindir) $(DESTDIR)$(libexecdir)/weir $(DESTDIR)$(docdir)
	install -m 755 $(BIN)/weir $(DESTDIR)$(sbindir)/weir
	install -m 755 $(BIN)/server_demo $(BIN)/client_demo $(DESTDIR)$(libexecdir)/weir
	install -m 644 $(wildcard README.md docs/*.md) $(DESTDIR)$(docdir)
endef

define uninstall_files
	rm -f $(DESTDIR)$(sbindir)/weir
	rm -rf $(DESTDIR)$(libexecdir)/weir $(DESTDIR)$(docdir)
endef
