"""Types of sched/collect.pyx: to import it lets the garbage collector see what tasks refer to."""
