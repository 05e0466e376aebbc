"""BATCH messages: files that hold what RECORD messages would, selection and stream maps included.

The SDK's own batches know of neither: a deselected address would be in the file.
"""
