"""Lets programs start the command line by `python -m sleap_rtc_plugin.cli`."""

from sleap_rtc_plugin.cli.main import main

main()
