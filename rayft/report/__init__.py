"""HTML reports: one page frame and a few charts, shared by every command that writes a page.

A page is one file without scripts and without requests: it can be mailed, archived and opened from a disk.
"""
