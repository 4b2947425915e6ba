"""Types of loop/calls.pyx: to import it gives Loop its call_soon and call_later."""
