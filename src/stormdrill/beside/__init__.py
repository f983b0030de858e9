"""Programs of ours that stand beside a system while a fault lasts: `python -m stormdrill.beside PROGRAM`.

Here live the allocator (`leak`), the CPU burner (`burn`) and the flood of requests (`flood`). Each is a process of its
own, standard library only, imported by nobody, bounded in what it takes and in time, and ends with whoever started
it. What must not live here: knowledge of experiments, journals or undo, and anything that reaches beyond loopback.
"""
