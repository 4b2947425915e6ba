"""The benchmark harness: ``python -m netpoll bench echo | micro | idle | sched``.

How it measures, and why so, is written in benchmarks/README.md. The parts:

    cli          the commands and their options
    arms         who takes part: loops, stdlib sockets, the floors in C
    server       one echo server, a process of its own
    cells        what is measured: sizes, connections, modes, the scenarios
    process      children, cores, CPU clocks
    watch        Ctrl-C and the time limit
    echo         the interleaved run; micro, idle: the two other commands
    stats        medians, spreads, percentiles, paired ratios
    environment  what the figures depend on: kernel, CPU, versions, settings
    syscalls     system calls per request, counted from outside
    display      the progress bar and the tables of the terminal
    report       the JSON file and the page of charts
    _native      the load generator and the floors (C, without the GIL)
"""
