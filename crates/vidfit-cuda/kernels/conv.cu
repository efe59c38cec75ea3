// Convolution.
#include "element.cuh"
