"""The benchmark harness: ``python -m netpoll bench COMMAND``.

docs/benchmarks.md lists the commands and says how a new kind is written; how it measures, and why
so, is written in benchmarks/README.md. The parts, each of which uses only those below it:

    kinds/          one file per command: its options, plan, measurement, rows, tables, charts

    cli             the command line
    command         what every command does once, whatever its kind
    display, page   tables in the terminal; tables and charts as one HTML file
    document        the result as one JSON-able document
    registry        finds the kinds

    works, relay    kinds that run pieces of work in a child; kinds that forward what they receive
    costs           kinds that measure nanoseconds per operation
    cells, loaded   which loads a server gets; servers under load, window by window
    windows         figures, columns and charts of such windows
    kind            what a kind has to say
    agent, hosts    the other machine: what it does; who asks it
    wire            how the two know each other
    otherloads      wrk, and a closed loop in C: what the load is verified by
    rounds          the interleaved run
    blocks          what a result consists of, to look at
    arguments       types of arguments

    process, server, supervisor     children: their start and end; the echo servers; other programs
    arms            who takes part: loops, stdlib sockets, the floors in C, programs
    clocks, cores   CPU time, read from outside; which core is whose
    primitives, schedworks, sendpaths   the work that micro, sched and zerocopy measure
    watch           Ctrl-C and the time limit
    stats           medians, spreads, percentiles, paired ratios
    environment     what the figures depend on: kernel, CPU, versions, settings
    syscalls        system calls per request, counted from outside
    tcp, tls        how sockets are set up; a certificate
    errors, records what ends in one sentence; what a result is made of
    _native         the load generator and the floors (C, without the GIL)
"""
