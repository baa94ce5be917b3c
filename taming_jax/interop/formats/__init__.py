"""Formats that checkpoints are published in: read as data, and written.

torch_files    torch.save's two formats (archives, torch_calls)
pickles        the program in them, without the right to import or to call (machine,
               opcodes)
safetensors    the format of that name
tensors        arrays that still lie in their file
"""
