"""CPython's own asyncio tests, run on netpoll's loop and judged against asyncio itself."""
