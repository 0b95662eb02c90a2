"""Which candidates a training batch has: texts in the batch and mined negatives."""
