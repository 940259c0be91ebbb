"""What the programs say to each other, and the machines that decide what to say.

Pure: no asyncio, no clock, no files, no sockets. Time and entropy are arguments;
effects are returned as values for a thin driver to perform.
"""
