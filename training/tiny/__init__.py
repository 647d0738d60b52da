"""How the embedded base is made: autoencoder, then text encoder and UNet, then its ControlNets."""
