"""What runs inside SLEAP's own process: the menu, the windows, and SLEAP's internals.

Qt is imported here and nowhere else, through `qtpy`. `autoload` and `startup` get in,
`sleap_compat` is the only module that touches SLEAP, `event_loop` the only one that
touches qasync.
"""
