// Every kernel.
#include "attention.cu"
#include "conv.cu"
#include "elementwise.cu"
#include "frame.cu"
#include "group_norm.cu"
#include "linear.cu"
#include "norm.cu"
#include "patch.cu"
