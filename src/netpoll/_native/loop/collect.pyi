"""Types of loop/collect.pyx: to import it lets the garbage collector see what a loop refers to."""
