"""What each architecture needs to become one ONNX graph: its class, a toy configuration, example inputs, and its quirks."""
from . import audio, image, joint, video

recipes = image.recipes | joint.recipes | video.recipes | audio.recipes
