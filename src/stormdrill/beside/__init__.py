"""Programs of ours that stand beside a system while a fault lasts: `python -m stormdrill.beside PROGRAM`.

Here live the allocator (`leak`), the CPU burner (`burn`), the flood of requests (`flood`), and who asks a system for
something and takes it back (`tell`). Each is a process of its
own, standard library only, imported by nobody, bounded in what it takes and in time, and ends with whoever started
it. Two more only look, from inside of a pod: whether somebody can be reached (`reach`), and what the kernel counts for
one of the others (`tagged`). What must not live here: knowledge of experiments, journals or undo, and anything that
reaches beyond loopback but what it was told by its address.
"""
