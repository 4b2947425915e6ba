"""Types of server/secure.pyx."""

from netpoll._native.server.worker import Worker

class SecureWorker(Worker): ...
