"""The benchmark harness: ``python -m netpoll bench COMMAND``.

docs/benchmarks.md lists the commands; how it measures, and why so, is written in
benchmarks/README.md. The parts:

    cli, clirelay   the commands and their options
    arms            who takes part: loops, stdlib sockets, the floors in C
    cells           what is measured: sizes, connections, modes, the scenarios
    server          one echo server, a process of its own
    process         children, cores, CPU clocks
    watch           Ctrl-C and the time limit
    echo            the interleaved run of echo servers
    micro, idle, files, sched, relay, zerocopy      the other commands
    primitives, schedworks      the work that micro and sched measure
    stats           medians, spreads, percentiles, paired ratios
    environment     what the figures depend on: kernel, CPU, versions, settings
    syscalls        system calls per request, counted from outside
    document        the result as one JSON-able document
    display         the progress bar and the tables of the terminal
    report          the JSON file and the page of charts
    _native         the load generator and the floors (C, without the GIL)
"""
