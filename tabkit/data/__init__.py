"""From a file to the arrays a model is trained on: source -> validate -> split -> encode."""
