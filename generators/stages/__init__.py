"""From the specs to each stage: the slice that it reads, and the call that does its work.

For every stage there is a `<stage>_slice(project, ...)` that decides whether the stage must run again, and a function of the stage's name
that runs it. dodo.py puts the two together; the stages themselves know neither. What a slice is stands in reading.py.
"""
