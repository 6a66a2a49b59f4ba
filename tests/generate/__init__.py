"""What is made from the declarations in the code, and committed: man pages, the table of metrics, manifests.

``make docs`` writes all of it; a test compares what is committed with what would be written.
"""
