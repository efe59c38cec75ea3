// Every kernel.
#include "elementwise.cu"
