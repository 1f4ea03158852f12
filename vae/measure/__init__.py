"""What is true of a model: measures, predictions, and the verdict that is made of them."""
