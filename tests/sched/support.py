"""What the scheduler's tests share."""

import textwrap


def private_bytes_script(count: int) -> str:
    """A program that prints the private memory, bytes, of a queued post and of one with an int."""
    return textwrap.dedent(
        f"""
        import gc, threading
        from netpoll import Scheduler

        def private_bytes():
            for line in open("/proc/self/smaps_rollup"):
                if line.startswith("Private_Dirty"):
                    return int(line.split()[1]) * 1024

        def nothing(*args):
            pass

        scheduler = Scheduler(1)
        go = threading.Event()
        scheduler.post(go.wait)
        for _ in range(2000):
            scheduler.post(nothing)
        gc.collect()
        before = private_bytes()
        for _ in range({count}):
            scheduler.post(nothing)
        between = private_bytes()
        for number in range({count}):
            scheduler.post(nothing, 10**6 + number)
        after = private_bytes()
        print((between - before) / {count}, (after - between) / {count})
        go.set()
        scheduler.close()
        """
    )
