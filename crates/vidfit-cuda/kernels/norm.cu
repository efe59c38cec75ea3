// Normalisation of rows.
#include "element.cuh"
