def explore(attack):
    pass
