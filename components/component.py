"""How every component of this project is declared."""

import functools

from kfp import dsl

# The name of the project's image; the tag is set when the pipeline is compiled.
IMAGE = "glintru-pipeline-python"

# The image holds this package, so nothing is installed when a task starts.
component = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
