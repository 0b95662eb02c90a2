"""The models, and the layers, losses and encoders they are made of."""
