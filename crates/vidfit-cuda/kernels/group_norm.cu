// Group normalisation of frames.
#include "element.cuh"
