// Latents to patches and back.
#include "element.cuh"
