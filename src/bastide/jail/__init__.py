"""The launcher: it starts with privileges and ends without.

Standard library only, and nothing else of Bastide, so that it can be read in one sitting. In the order of a start:

``launcher``  builds a root in a mount namespace of its own, drops to the job's user, becomes bubblewrap
``namespaces``  the system calls for that: unshare, mount, pivot_root, capabilities, parent-death signal
``seccomp``  the table of system calls a job may not make, and the assembler of its filter
``cgroups``  memory, process and CPU limits, use, and killing what is left
``probe``  what this machine can do, and how to get what is missing
"""
