"""What the proof on one machine is made of: Docker, images, services as the manifests configure them, a runner."""
