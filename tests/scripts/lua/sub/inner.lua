return {name = 'inner'}
