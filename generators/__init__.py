"""What turns `specs/` into a fine-tuned, measured, quantised model: one module or sub-package a stage, named like the stage."""
