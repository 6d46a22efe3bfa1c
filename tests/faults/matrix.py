MATRIX = ()


class Fault:
    pass
