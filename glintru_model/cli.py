"""Every stage without Kubernetes."""
