# weir: `make help` lists what can be made. GNU make.
#
#       sources ──► objects ──► parts.a ──► weir, server_demo, client_demo, each unit test, each fuzz target
#                          └──► libweir.a, libweir.so: for other programs, with nothing to be seen of it but weir.h
#
# Everything but the mains goes into one archive, and each program takes from it only the objects that it needs.
# The same rules build several flavours, each with its own flags in its own folder, so that none spoils another's:
#
#       FLAVOUR=        build/          the programs themselves, put in the top folder
#       FLAVOUR=asan    build/asan/     AddressSanitizer, UndefinedBehaviorSanitizer, leak check
#       FLAVOUR=tsan    build/tsan/     ThreadSanitizer
#       FLAVOUR=coverage build/coverage/ gcov's counters
#       FLAVOUR=lint    build/lint/     clang, with the lock annotations of lib/ts.h checked
#       FLAVOUR=fuzz    build/fuzz/     clang's libFuzzer with both sanitizers
#
# From outside: CC, AR, CFLAGS, CPPFLAGS, LDFLAGS (added to weir's own flags), WERROR= (warnings stay warnings), V=1 (show
# commands), BUILD (where objects go), PREFIX, DESTDIR and each folder (bindir, mandir, sysconfdir, unitdir …: see "installing" at
# the end), and the idea files, to try your own:
#
#       make LIMITER=labs/mine/limiter.c test
#
# The labs (labs/README.md) put a student's file in the place of any one source, in build/lab/: see labs/rules.mk.

all: weir server_demo client_demo library ## build weir, the two demo programs and the library (what plain `make` does)
library: ## libweir.a and libweir.so, the proxy for other programs (weir.h)
test: ; $(call run_tests,) ## install what is missing, build, run the unit tests and the system tests
faults: ; $(run_faults) ## a fault under every call that a scenario reaches: make faults OWN_EVERY=1 LIBRARY_EVERY=1
unit: ; $(call run_tests,,unit) ## the unit tests alone
asan: ; $(call run_tests,asan) ## the same tests under AddressSanitizer and UndefinedBehaviorSanitizer
tsan: ; $(call run_tests,tsan) ## the same tests under ThreadSanitizer
coverage: ; $(run_coverage) ## which lines and branches the tests run, worst first; writes docs/coverage.md
sim: ; $(run_sim) ## the cluster simulated, every window checked: make sim HOURS=500 SEED=1
sim_mutations: ; $(run_sim_mutations) ## break the cluster's rules one by one: the simulation must find each
mutations: ; $(run_mutations) ## change the ideas in one place at a time: a test must notice each
soak: ; $(run_soak) ## load, and meanwhile everything that can happen: make soak MINUTES=60 RATE=1500 SOAK_SEED=1
tsan_soak: ; $(run_tsan_soak) ## a minute of it under ThreadSanitizer
cluster_table: ; $(run_cluster_table) ## the cluster's scenarios: fullest window, utilisation, failover, latency
fuzz: ; $(run_fuzz) ## each parser against random input: make fuzz SECONDS=60
attack: ; $(run_attack) ## the large attacks: 100,000 half-open connects, thousands of slow clients, floods
bench: ; $(run_bench) ## the goals of speed, weir beside others, a target killed under load, the limits' exactness and cost
bench_limits: ; $(run_bench_limits) ## thresholds against the largest window seen and the utilisation
bench_decision: ; $(run_bench_decision) ## what one decision of a limit costs, alone and with 64 threads on it
lint: ; $(run_lint) ## clang's lock checker, the layering rules, the scripts, the pages
docs: ; $(write_docs) ## what the settings table decides, code and outputs in the guide, the site: build/site/index.html
lab: ; $(run_lab) ## grade your own part of weir: make lab N=3 [MINE=file.c] [ONLY='words of one test']
replay: ; $(run_replay) ## lab 11: what the threads did, the same way each time: make replay [SEED=91] [SCENE=2] [MINE=file.c]
labs_check: ; $(run_labs_check) ## the labs' own test: what each grader says of skeletons, of our modules and of wrong solutions
conformance: ; $(write_conformance) ## raw bytes against weir, HAProxy and nginx: write docs/conformance.md
install: all ; $(install_files) ## install below PREFIX (/usr/local), in DESTDIR if given
uninstall: ; $(uninstall_files) ## remove what install put there
clean: ; rm -rf $(BUILD) weir server_demo client_demo libweir.a libweir.so* ## remove everything that was built
help: ; @sed -n 's/^\([a-z_]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24 ## this list
.PHONY: all library test faults unit asan tsan coverage sim sim_mutations mutations soak tsan_soak attack cluster_table fuzz bench bench_limits bench_decision lint docs lab replay labs_check conformance install uninstall clean help objects \
	unit_tests fuzz_targets bench_programs FORCE

VERSION := $(shell sed -n 's/^.define WEIR_VERSION "\(.*\)"$$/\1/p' weir.h)

# ---- what there is ---------------------------------------------------------------------------------------------------

BALANCER = balancer.c
LIMITER = limiter.c
CLUSTER = $(wildcard cluster.c)
LIBRARY_SOURCES = weir.c weir_limits.c services.c roster.c service.c group.c \
	console.c live.c status.c summary.c metrics.c control.c \
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
FAULTS = $(O)/tests/faults/faults.so
BENCH_PROGRAMS = $(patsubst %.c,%,$(wildcard bench/*.c))
SIM_SOURCES = $(wildcard tests/sim/*.c)
SOAK_SOURCES = $(wildcard tests/soak/*.c)
LAB_SOURCES = $(wildcard labs/*.c $(addprefix labs/*/,grade.c skeleton.c reference.c replay.c scenes.c crowd.c))

BUILD = build
FLAVOUR =
O = $(BUILD)$(if $(FLAVOUR),/$(FLAVOUR))
BIN = $(if $(FLAVOUR),$(O),.)

LIBRARY = $(O)/parts.a
# An idea's object has the idea's name, whichever file it is made from.
IDEA_OBJECTS = $(O)/balancer.o $(O)/limiter.o $(if $(CLUSTER),$(O)/cluster.o)
LIBRARY_OBJECTS = $(LIBRARY_SOURCES:%.c=$(O)/%.o) $(IDEA_OBJECTS) $(O)/page.o
WEIR_OBJECTS = $(O)/main.o $(O)/top.o $(O)/ask.o $(O)/healthcheck.o $(O)/manager.o
MAIN_OBJECTS = $(WEIR_OBJECTS) $(O)/server_demo.o $(O)/client_demo.o
UNIT_OBJECTS = $(UNIT_TESTS:%=$(O)/%.o) $(O)/tests/unit/unit.o
FUZZ_OBJECTS = $(FUZZ_TARGETS:%=$(O)/fuzz/%.o)
BENCH_OBJECTS = $(BENCH_PROGRAMS:%=$(O)/%.o)
SIM_OBJECTS = $(SIM_SOURCES:%.c=$(O)/%.o)
SOAK_OBJECTS = $(SOAK_SOURCES:%.c=$(O)/%.o)
LAB_OBJECTS = $(LAB_SOURCES:%.c=$(O)/%.o)
OBJECTS = $(LIBRARY_OBJECTS) $(MAIN_OBJECTS) $(UNIT_OBJECTS) $(FUZZ_OBJECTS) $(BENCH_OBJECTS) $(SIM_OBJECTS) $(SOAK_OBJECTS) \
	$(LAB_OBJECTS)

# ---- how it is compiled ----------------------------------------------------------------------------------------------

ifeq ($(origin CC),default)
CC = gcc
endif
WERROR = -Werror
CFLAGS ?= $(if $(FLAVOUR),$(if $(filter coverage,$(FLAVOUR)),-O0,-O1),-O2) -g

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
SANITIZE_coverage = --coverage -fprofile-update=atomic
SANITIZE_lint = -Wthread-safety -Wthread-safety-beta
SANITIZE_fuzz = -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SANITIZE = $(SANITIZE_$(FLAVOUR))

OWN_CFLAGS = -std=c11 -D_GNU_SOURCE -DWEIR_VERSION='"$(VERSION)"' -I. -pthread -fPIC \
	-Wall -Wextra -Wshadow -Wconversion $(WERROR) $(HARDENING) $(SANITIZE)
OWN_LDFLAGS = -pthread -pie -Wl,--as-needed -Wl,-z,relro,-z,now -Wl,-z,noexecstack $(SANITIZE)
LIBS = -linih -ljansson -lhiredis -lssl -lcrypto -lcrypt -lm

COMPILE = $(CC) $(OWN_CFLAGS) $(VISIBILITY) $(CPPFLAGS) $(CFLAGS)
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

$(BIN)/weir: $(WEIR_OBJECTS) $(LIBRARY)
$(BIN)/server_demo: $(O)/server_demo.o $(LIBRARY)
$(BIN)/client_demo: $(O)/client_demo.o $(LIBRARY)
$(PROGRAMS:%=$(BIN)/%): ; $(link)
define link
	echo "  link     $@"
	$(LINK) -o $@ $^ $(LIBS)
endef

$(LIBRARY): $(LIBRARY_OBJECTS) $(O)/contents
	echo "  archive  $@"
	rm -f $@
	$(AR) rcs $@ $(filter %.o,$^)

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
$(O)/flags $(O)/ideas $(O)/contents: FORCE ; $(say)
define say
	mkdir -p $(@D)
	printf '%s\n' '$(subst ','\'',$(SAYS))' >$@.new
	if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
endef

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

# Preloaded under the programs of the plain build and the coverage build. -fno-builtin: a compiler that knows malloc() would make
# calloc() call itself. Not fortified: it stands for the functions that fortified programs call. Nor counted: it is no part of weir.
$(FAULTS): tests/faults/faults.c $(O)/flags
	echo "  link     $@"
	mkdir -p $(@D)
	$(filter-out $(SANITIZE_coverage),$(COMPILE)) -U_FORTIFY_SOURCE -fno-builtin -fPIC -shared $(LDFLAGS) -o $@ $<

# Not from the library: a rule that was broken on purpose then makes two objects again, and not all.
$(O)/tests/sim/sim: $(SIM_OBJECTS) $(O)/cluster.o $(O)/limiter.o $(O)/cluster_wire.o
	echo "  link     $@"
	$(LINK) -o $@ $^ $(LIBS)

$(O)/tests/soak/traffic: $(SOAK_OBJECTS)
	echo "  link     $@"
	$(LINK) -o $@ $^

ifeq ($(origin LAB),command line)
include labs/rules.mk
endif

objects: $(OBJECTS) $(FAULTS)

# ---- the library for other programs ----------------------------------------------------------------------------------

# The objects' own names (conn_send, log_write, ...) are no other program's business, and might be its names too. The shared library
# shows what weir.h marks (the rest is compiled hidden) and weir.map gives a version; for the static one all objects are linked into one,
# whose hidden names then become local.
SOVERSION = 0
SONAME = libweir.so.$(SOVERSION)
SHARED_LIBRARY = $(BIN)/libweir.so.$(VERSION)
PUBLIC_LIBRARIES = $(BIN)/libweir.a $(SHARED_LIBRARY) $(BIN)/$(SONAME) $(BIN)/libweir.so
# A library that was unloaded while one of its threads asks the name service would be missed: it stays (nodelete). Sanitizers bring
# names that are only found at run time.
SHARED_LDFLAGS = -shared -Wl,-soname,$(SONAME) -Wl,--version-script,weir.map -Wl,-z,nodelete $(if $(SANITIZE),,-Wl,-z,defs)
OBJCOPY = objcopy

library: $(PUBLIC_LIBRARIES)
# private: what the objects are made from is not theirs alone
$(LIBRARY_OBJECTS): private VISIBILITY = -fvisibility=hidden

$(BIN)/libweir.a: $(LIBRARY_OBJECTS) $(O)/contents
	echo "  archive  $@"
	$(CC) $(CFLAGS) $(if $(findstring -flto,$(CFLAGS)),-flinker-output=nolto-rel) -r -nostdlib -o $(O)/libweir.o $(filter %.o,$^)
	$(OBJCOPY) --localize-hidden $(O)/libweir.o
	rm -f $@
	$(AR) rcs $@ $(O)/libweir.o

$(SHARED_LIBRARY): $(LIBRARY_OBJECTS) $(O)/contents weir.map
	echo "  link     $@"
	$(CC) $(CFLAGS) $(filter-out -pie,$(OWN_LDFLAGS)) $(LDFLAGS) $(SHARED_LDFLAGS) -o $@ $(filter %.o,$^) $(LIBS)
$(BIN)/$(SONAME) $(BIN)/libweir.so: $(SHARED_LIBRARY)
	ln -sf $(<F) $@

# ---- what the table of contents calls --------------------------------------------------------------------------------

# Inside one of these a second make builds a flavour, on all processors unless the caller has said how many.
jobs = $(if $(findstring -j,$(MAKEFLAGS)),,-j$$(nproc))
make_flavour = $(MAKE) --no-print-directory $(jobs)

# $(1) the flavour, $(2) "unit" for the unit tests alone
define run_tests
	deploy/prerequisites.sh test
	+$(make_flavour) FLAVOUR=$(1) $(if $(2),,$(PROGRAMS) library bench_programs $(if $(1),,$(FAULTS))) unit_tests
	CC='$(CC)' tests/run.sh '$(1)' '$(BUILD)/$(1)/tests/unit' $(if $(2),,'$(if $(1),$(BUILD)/$(1),$(BIN))')
endef

# Counters are written when a program ends, and added to those that are there: so they begin anew. The tests that failed count, too.
define run_coverage
	deploy/prerequisites.sh test
	+$(make_flavour) FLAVOUR=coverage $(PROGRAMS) library bench_programs $(BUILD)/coverage/tests/faults/faults.so unit_tests
	find $(BUILD)/coverage -name '*.gcda' -delete
	CC='$(CC)' tests/run.sh coverage '$(BUILD)/coverage/tests/unit' '$(BUILD)/coverage' && result=0 || result=1; \
		python3 tests/coverage.py --objects $(BUILD)/coverage && exit $$result
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

# MUTATIONS="--every 10 --seed 3 limiter.c": see the top of the script
define run_mutations
	deploy/prerequisites.sh test
	+$(make_flavour) $(O)/tests/sim/sim unit_tests $(PROGRAMS) $(FAULTS)
	python3 tests/mutations.py --objects '$(O)' --bin '$(BIN)' --compile '$(COMPILE)' --link '$(LINK)' --libs '$(LIBS)' \
		--weir '$(WEIR_OBJECTS) $(LIBRARY)' $(MUTATIONS)
endef

MINUTES = 5
RATE = 1000
# Without a seed it takes one, and says which.
define run_soak
	deploy/prerequisites.sh test
	+$(make_flavour) weir
	+$(make_flavour) FLAVOUR= $(BUILD)/tests/soak/traffic
	tests/soak/run.sh '$(FLAVOUR)' --bin $(BIN) --traffic $(BUILD)/tests/soak/traffic --minutes $(MINUTES) --rate $(RATE) \
		$(if $(SOAK_SEED),--seed $(SOAK_SEED))
endef
define run_tsan_soak
	+$(make_flavour) FLAVOUR=tsan MINUTES=1.25 RATE=250 soak
endef

define run_attack
	deploy/prerequisites.sh test
	+$(make_flavour) $(PROGRAMS) bench_programs
	python3 tests/attack/attack.py --bin $(BIN)
endef

define run_cluster_table
	deploy/prerequisites.sh build
	+$(make_flavour) $(O)/tests/sim/sim
	$(O)/tests/sim/sim --table
endef

OWN_EVERY = 1
LIBRARY_EVERY = 1
define run_faults
	deploy/prerequisites.sh test
	+$(make_flavour) $(PROGRAMS) $(FAULTS)
	python3 tests/faults/walk.py --bin $(BIN) --own-every $(OWN_EVERY) --library-every $(LIBRARY_EVERY)
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

# $(1) what writes it, $(2) the file: never half a file, and never an empty one.
write_page = $(1) >$(2).new && mv $(2).new $(2)
define write_docs
	deploy/prerequisites.sh docs
	+$(make_flavour) $(PROGRAMS)
	$(call write_page,$(BIN)/weir --reference,docs/settings.md)
	$(call write_page,$(BIN)/weir --manual-flags | docs/man/fill.sh docs/man/weir.1,docs/man/weir.1)
	$(call write_page,$(BIN)/weir --manual-keys | docs/man/fill.sh docs/man/weir.ini.5,docs/man/weir.ini.5)
	$(call write_page,$(BIN)/weir --completion bash,deploy/completion/weir.bash)
	python3 tests/system/metrics_page.py --bin $(BIN)
	docs/build.py fill --bin $(BIN)
	docs/build.py site --out $(BUILD)/site
endef

# MINE may be any file; without it, mine.c in the lab's folder. WEIR=yes also builds weir with it, in build/lab/.
define run_lab
	+MAKE="$(make_flavour)" labs/lab.sh '$(N)' '$(MINE)' '$(ONLY)' '$(SEED)' '$(WEIR)'
endef

# SEED has a value of its own here, for the simulation: only what the caller says counts.
define run_replay
	+MAKE="$(make_flavour)" CC='$(CC)' labs/replay.sh '$(MINE)' '$(if $(filter command line environment,$(origin SEED)),$(SEED))' '$(SCENE)' '$(TSAN)'
endef

define run_labs_check
	deploy/prerequisites.sh test
	+MAKE="$(make_flavour)" tests/labs.sh
endef

define write_conformance
	deploy/prerequisites.sh test
	+$(make_flavour) weir
	python3 tests/system/conformance/page.py --bin $(BIN) >docs/conformance.md.new
	mv docs/conformance.md.new docs/conformance.md
endef

# ---- installing ------------------------------------------------------------------------------------------------------

# Each from outside, as in make install PREFIX=/usr DESTDIR=/tmp/image. DESTDIR is where the files are put down, and stands in none
# of them: what PREFIX and the folders say is where they will be found.
PREFIX = /usr/local
prefix = $(PREFIX)
bindir = $(PREFIX)/bin
libdir = $(PREFIX)/lib
libexecdir = $(PREFIX)/libexec
includedir = $(PREFIX)/include
pkgconfigdir = $(libdir)/pkgconfig
datadir = $(PREFIX)/share
mandir = $(datadir)/man
docdir = $(datadir)/doc/weir
completiondir = $(datadir)/bash-completion/completions
sysconfdir = $(if $(filter /usr /usr/local,$(PREFIX:/=)),,$(PREFIX:/=))/etc
unitdir = $(PREFIX)/lib/systemd/system
sysusersdir = $(PREFIX)/lib/sysusers.d

# Everything that is installed, once, as KIND:FROM:TO; uninstall reads the same list. A template has the words between @ signs
# filled in. A config is the administrator's as soon as it is there: not written over, and removed only as it came.
#
# server_demo and client_demo are names that another package will have one day: those in bindir begin with weir-.
INSTALLED = \
	program:$(BIN)/weir:$(bindir)/weir \
	program:$(BIN)/server_demo:$(libexecdir)/weir/server_demo \
	program:$(BIN)/client_demo:$(libexecdir)/weir/client_demo \
	link:$(libexecdir)/weir/server_demo:$(bindir)/weir-server-demo \
	link:$(libexecdir)/weir/client_demo:$(bindir)/weir-client-demo \
	data:weir.h:$(includedir)/weir.h \
	data:$(BIN)/libweir.a:$(libdir)/libweir.a \
	data:$(SHARED_LIBRARY):$(libdir)/libweir.so.$(VERSION) \
	link:$(libdir)/libweir.so.$(VERSION):$(libdir)/$(SONAME) \
	link:$(libdir)/$(SONAME):$(libdir)/libweir.so \
	template:weir.pc.in:$(pkgconfigdir)/weir.pc \
	$(foreach example,$(wildcard examples/*.ini examples/*.c examples/*.py),data:$(example):$(docdir)/$(example)) \
	data:docs/man/weir.1:$(mandir)/man1/weir.1 \
	data:docs/man/weir.ini.5:$(mandir)/man5/weir.ini.5 \
	data:docs/man/libweir.3:$(mandir)/man3/libweir.3 \
	data:docs/man/server_demo.1:$(mandir)/man1/weir-server-demo.1 \
	data:docs/man/client_demo.1:$(mandir)/man1/weir-client-demo.1 \
	link:$(mandir)/man1/weir-server-demo.1:$(mandir)/man1/server_demo.1 \
	link:$(mandir)/man1/weir-client-demo.1:$(mandir)/man1/client_demo.1 \
	data:deploy/completion/weir.bash:$(completiondir)/weir \
	config:deploy/weir.ini:$(sysconfdir)/weir/weir.ini \
	config:deploy/weir.logrotate:$(sysconfdir)/logrotate.d/weir \
	template:deploy/systemd/weir.service.in:$(unitdir)/weir.service \
	data:deploy/systemd/weir.sysusers:$(sysusersdir)/weir.conf \
	$(foreach page,README.md CHANGELOG.md LICENSE $(wildcard docs/*.md),page:$(page):$(docdir)/$(page)) \
	$(foreach picture,$(wildcard docs/pictures/*.svg),data:$(picture):$(docdir)/$(picture)) \
	data:deploy/grafana/weir.json:$(docdir)/grafana/weir.json

install_program = install -D -m 755 $(1) '$(DESTDIR)$(2)'
install_data = install -D -m 644 $(1) '$(DESTDIR)$(2)'
fill_template = $(foreach word,prefix bindir libdir includedir sysconfdir version,-e 's,@$(word)@,$($(word)),g')
install_template = sed $(fill_template) $(1) | install -D -m 644 /dev/stdin '$(DESTDIR)$(2)'
# Pages lie there as they do here; links to what stays in the source are plain words.
page_links = -e 's,]\((\.\./)?deploy/grafana/,](\1grafana/,g' \
	-e 's,\[([^]]*)]\((\.\./)?((deploy|lib|tests|labs|fuzz|bench|page)(/[^)]*)?|[a-z_]*\.(c|h|sh)|Makefile)\),\1,g'
install_page = sed -E $(page_links) $(1) | install -D -m 644 /dev/stdin '$(DESTDIR)$(2)'
install_config = test -e '$(DESTDIR)$(2)' || install -D -m 644 $(1) '$(DESTDIR)$(2)'
install_link = mkdir -p '$(DESTDIR)$(dir $(2))' && \
	ln -sf "$$(realpath -sm --relative-to='$(dir $(2))' '$(1)')" '$(DESTDIR)$(2)'
remove_any = rm -f '$(DESTDIR)$(2)'
remove_config = if cmp -s $(1) '$(DESTDIR)$(2)'; then rm '$(DESTDIR)$(2)'; elif test -e '$(DESTDIR)$(2)'; then \
	echo 'kept, for it was changed: $(DESTDIR)$(2)'; fi

# $(call each_installed,VERB): runs VERB_KIND, or VERB_any, on each FROM and TO.
define newline


endef
each_installed = $(foreach entry,$(INSTALLED),$(call installed_entry,$(1),$(subst :, ,$(entry)))$(newline))
installed_entry = $(call $(if $(value $(1)_$(firstword $(2))),$(1)_$(firstword $(2)),$(1)_any),$(word 2,$(2)),$(word 3,$(2)))

version = $(VERSION)

# Folders that are weir's own go when they are empty. In a DESTDIR all do that weir was put into.
OWN_FOLDERS = $(libexecdir)/weir $(docdir)/grafana $(docdir)/examples $(docdir)/docs/pictures $(docdir)/docs $(docdir) $(sysconfdir)/weir
folders_of = $(sort $(foreach entry,$(INSTALLED),$(patsubst %/,%,$(dir $(word 3,$(subst :, ,$(entry)))))))

define install_files
	$(call each_installed,install)
endef

define uninstall_files
	$(call each_installed,remove)
	$(if $(DESTDIR),cd '$(DESTDIR)' && for folder in $(folders_of:/%=%); do \
		test ! -d "$$folder" || rmdir -p --ignore-fail-on-non-empty "$$folder"; done)
	for folder in $(OWN_FOLDERS); do \
		test ! -d '$(DESTDIR)'"$$folder" || rmdir --ignore-fail-on-non-empty '$(DESTDIR)'"$$folder"; done
endef
