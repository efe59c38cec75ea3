// Matrix products.
#include "element.cuh"
