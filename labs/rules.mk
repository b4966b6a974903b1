# labs/rules.mk: how a student's file takes the place of one of weir's. Read by the Makefile when LAB is set on the command
# line, which labs/lab.sh and tests/labs.sh do.
#
#       LAB         the lab's folder, 01-rotation
#       REPLACES    the source of ours that is left out, balancer.c
#       SOLUTIONS   what stands in for it: NAME=FILE ..., each built in build/lab/LAB/NAME
#       LINKS       sources that the grader needs besides
#       WITH        what is made of each: grade, and the programs where they are wanted
#
#       FILE ──► mine.o ──┐
#       grade.c ──► grade.o ─┼──► grade, weir, server_demo, client_demo
#       the objects of the ordinary build, without REPLACES' ──► parts.a ──┘
#
# Nothing of the ordinary build is changed, so a second try compiles one file and links.

L = $(O)/lab/$(LAB)
REPLACED = $(REPLACES:%.c=$(O)/%.o)
# A lab with an interface of its own replaces a file of labs/: ours, behind that interface.
ifeq ($(filter $(REPLACED),$(LIBRARY_OBJECTS))$(filter labs/%,$(REPLACES)),)
$(error labs/$(LAB)/lab.conf: replaces = $(REPLACES), which is no source of weir's library)
endif
solution_names = $(foreach solution,$(SOLUTIONS),$(firstword $(subst =, ,$(solution))))

lab_programs: $(foreach name,$(solution_names),$(WITH:%=$(L)/$(name)/%))
.PHONY: lab_programs

$(L)/parts.a: $(filter-out $(REPLACED),$(LIBRARY_OBJECTS)) $(L)/contents
	rm -f $@
	$(AR) rcs $@ $(filter %.o,$^)
$(L)/contents: SAYS = $(filter-out $(REPLACED),$(LIBRARY_OBJECTS))
$(L)/contents: FORCE ; $(say)

$(L)/grade.o: labs/$(LAB)/grade.c $(O)/flags ; $(compile)
$(L)/replay.o: labs/$(LAB)/replay.c $(O)/flags ; $(compile)

# private: the flags that a student's file is compiled with are not those of what else it needs. Its warnings stay warnings.
define solution_rules
$(L)/$(1)/mine.o: private WERROR =
$(L)/$(1)/mine.o: SOURCE = $(2)
$(L)/$(1)/mine.o: $(2) $(O)/flags $(L)/$(1)/source ; $$(compile)
$(L)/$(1)/source: SAYS = $(2)
$(L)/$(1)/source: FORCE ; $$(say)
$(L)/$(1)/grade: $(L)/grade.o $(O)/labs/grade.o $(LINKS:%.c=$(O)/%.o) $(L)/$(1)/mine.o $(L)/parts.a
$(L)/$(1)/replay: $(L)/replay.o $(LINKS:%.c=$(O)/%.o) $(L)/$(1)/mine.o
$(L)/$(1)/weir: $(WEIR_OBJECTS) $(L)/$(1)/mine.o $(L)/parts.a
$(L)/$(1)/server_demo: $(O)/server_demo.o $(L)/$(1)/mine.o $(L)/parts.a
$(L)/$(1)/client_demo: $(O)/client_demo.o $(L)/$(1)/mine.o $(L)/parts.a
$(WITH:%=$(L)/$(1)/%): ; $$(link)
-include $(L)/$(1)/mine.d
endef
ifneq ($(WITH),)
$(foreach solution,$(SOLUTIONS),$(eval \
	$(call solution_rules,$(firstword $(subst =, ,$(solution))),$(lastword $(subst =, ,$(solution))))))
endif
-include $(L)/grade.d $(L)/replay.d
