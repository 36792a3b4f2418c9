"""Where programs that a model has written run, and are tested.

What is trusted: Python, the kernel, this package. Tests come with a data set: they decide what is right, and
are kept from the machine as programs are. A program is taken for hostile. For each there are two processes:

    program  runs it, and answers calls with plain data; never sees a test, a verdict, or another program
    judge    runs the tests, in which the program's functions are stand-ins that call the other process

So a verdict cannot be forged: printing "passed", exit codes, patched built-ins and objects that equal
everything stay in the program's process, and what it returns is compared outside of it.

Around both stand, each alone enough against most of what programs do by accident or on purpose:

    namespaces    no network, no processes outside, no files but Python's library, read-only; no environment
    system calls  no process, thread, signal, socket, or memory beside the address space (a filter, seccomp)
    limits        CPU time, address space, the length of an answer; wall-clock time, kept by a third process

What this does not hold against: flaws of the kernel, and of the processor that is shared.
"""
