"""Data for the demonstrations: scikit-learn's handwritten digits as folders, scenes and boxes on disk."""
