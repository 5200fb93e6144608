//! What a network is: values, operators, shapes, ONNX in and out, differentiation, rewriting, cost.
