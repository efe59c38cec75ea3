// Frames: cut, joined, enlarged.
#include "element.cuh"
