// Attention.
#include "element.cuh"
